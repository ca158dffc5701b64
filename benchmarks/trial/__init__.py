"""Fixes are asked for, approved and done while all that does them is killed; without it "once" would be a hope."""
