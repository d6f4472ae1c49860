"""Where is this photo? Predictors, the champion that they use, and the release that is served."""
