"""From names and labels to clips: annotations, splits, sampling, augmentation, the data set."""
