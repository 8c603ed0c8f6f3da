"""Commands of some length, a module each; the short ones stand in `hsiclust.cli`."""
