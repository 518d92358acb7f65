"""Of layers that are alike, the first and the last are traced, and the others are copies of the first.

`alike` says which are, `marks` has the model traced with them, and `copies` writes the others out in the ONNX graph.
"""
