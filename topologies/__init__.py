"""Topologies: what is connected to what. Pure data and loaders; imports nothing of ours."""
