"""The semantic item tree: values, snapshot, build, place, search, store.

Knows nothing of models, prompts or HTTP. Start reading at `snapshot.SemanticTree`.
"""
