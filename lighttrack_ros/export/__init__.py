"""Turn a checkpoint into a model folder: download, import, write the graphs."""
