"""Pretrained models: found, loaded, made trainable in part, and proved frozen for the rest."""
