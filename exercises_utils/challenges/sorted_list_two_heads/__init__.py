"""Sorted list, two heads: how do two attention heads share the work of sorting ten numbers?"""
