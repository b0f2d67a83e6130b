"""Tuning: studies that go on after any crash, over parameters of both stages."""
