"""Examples as token ids with a label mask, by the model's own chat template. No torch here."""
