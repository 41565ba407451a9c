"""Lesson 05: how a language model multiplies."""
