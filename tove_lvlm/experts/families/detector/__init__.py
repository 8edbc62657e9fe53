"""The family `detector`: an object detector's boxes as a map, run by OpenCV."""
