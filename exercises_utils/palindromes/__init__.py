"""The palindromes challenge."""
