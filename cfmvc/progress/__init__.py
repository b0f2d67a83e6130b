"""Progress bars for whoever watches a terminal; lines of plain text elsewhere.

Each is a context manager: whatever ends the work, the bar is stopped and the cursor is back.
"""
