"""The family `tflite`: any network in a TFLite file, run by LiteRT."""
