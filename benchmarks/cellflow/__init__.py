"""The model against ``cellflow-tools``, fold by fold."""
