"""Conversions of models."""
