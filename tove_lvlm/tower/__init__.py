"""The vision tower: a frozen CLIP, the hub of experts, the token-aware gate and residual knowledge transfer."""
