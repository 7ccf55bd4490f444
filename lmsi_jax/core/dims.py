"""The legend of dimension letters, which annotations and einsums share.

====  ==================================================================
b     prompts (in decoding: lanes, one question each)
m     paths of one prompt (in decoding: slots, the paths in flight)
n     rows, ``n = b * m``; consecutive rows belong to one prompt
t     query tokens
s     key/value slots of a block
r     response slots (the most tokens a path may have)
l     layers
d     width of the residual stream
x     query heads
k     key/value heads
g     query heads that share one key/value head, ``x = k * g``
h     head width
f     width of the MLP
v     vocabulary
====  ==================================================================
"""
