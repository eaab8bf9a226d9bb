"""What an ImageClassifier shows of itself, in a notebook and elsewhere: progress, tables, figures, a card."""
