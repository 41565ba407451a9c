"""Sum of two numbers: how does a two-layer model add four digits to four digits, carries and all?"""
