"""Readers: files of nodes and jobs in the formats others use, one module each."""
