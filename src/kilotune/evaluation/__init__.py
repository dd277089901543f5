"""How good it is: answers to labels, labels to figures, figures to a verdict. No torch here."""
