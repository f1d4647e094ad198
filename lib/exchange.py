"""What the commands about files for people and other tools do: count, sample-gold, review, export.

They speak to a terminal, and decide nothing that the library decides.
"""
