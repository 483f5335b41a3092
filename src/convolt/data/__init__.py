"""From where images are to minibatches on the training device: sources, prepare, loader, augment, module."""
