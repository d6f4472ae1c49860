"""From a photo to an answer: the predictor protocol, the champion and the release that is served."""
