"""What text shows of a model: channels' moves, rounded matrices, the scales of an int8 cache."""
