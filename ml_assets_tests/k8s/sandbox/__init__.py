"""Servers for a throwaway cluster, as they run in pods from the image's target `sandbox`."""
