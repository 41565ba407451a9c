"""Sorted list, one head: can a model with one attention head and nothing else sort ten numbers?"""
