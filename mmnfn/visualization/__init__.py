"""Figures: Grad-CAM, ROI maps, brain maps, and those of demo and study."""
