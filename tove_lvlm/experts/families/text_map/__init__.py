"""The family `text_map`: where text is, by PP-OCR's detector."""
