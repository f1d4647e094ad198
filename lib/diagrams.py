"""Pictures of what gold says: how a threshold trades finds for misses, what is taken for what.

Each is drawn, saved and shown as those of `charts` are.
"""
