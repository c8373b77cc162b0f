"""What only a laptop needs: embedded servers, simulated markets, the demo. A bank's runs use it in no other case than
an empty address in the settings.
"""
