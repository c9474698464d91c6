"""The GGUF file format (ggml-org/ggml, docs/gguf.md, version 3), which llama.cpp and all that is built on it read.

layout: how each architecture is spelled · vocabulary: tokenizers · types, _k_quants: how numbers are packed ·
reader: files from anywhere, every length checked first.
"""
