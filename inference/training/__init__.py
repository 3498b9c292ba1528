"""Training recipes: one data set or recipe a module, and the metrics they share."""
