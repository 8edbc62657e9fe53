"""The family `edge_filter`: edges by Canny's or Sobel's filter, without weights."""
