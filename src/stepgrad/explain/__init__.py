"""Explanation: steps, formulas, NumPy source, cache ledger, cost. All read from the tape."""
