"""The family `dexined`: edges by DexiNed, kornia's network."""
