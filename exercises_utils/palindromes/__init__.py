"""Lesson 03: is this sequence a palindrome?"""
