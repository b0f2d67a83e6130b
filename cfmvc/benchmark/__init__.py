"""The benchmark: tasks, their folds, and the model beside the baselines on each of them."""
