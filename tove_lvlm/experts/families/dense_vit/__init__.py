"""The family `dense_vit`: a plain ViT that predicts a map with one linear head per patch."""
