"""Observers that come with the guard, one small module each."""
