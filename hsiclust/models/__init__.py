"""Methods: what turns components into class scores, and learns to."""
