"""Backward passes as people write them by hand, all correct, one file each.

The code of a file, above its marker line, is what people write. Below it stands what the benchmark knows about it:

    PAIR                the names of the two functions; or OBJECT, a class with `forward` and `backward`
                        (`make_object(rng)` then makes one)
    make_inputs(rng)    random arguments of the forward
    GRADIENTS           the user's name of each gradient -> the input it belongs to; for a tuple, the inputs in order
    WEIGHTS             matrices as the backward calls them, where a transpose can be forgotten
    BIASES, BROADCAST   gradients that are sums because something was broadcast: biases, and others
    REGULARISER         the terms that come from a penalty
    DIVISORS            where the mean is taken -> what could wrongly be divided by
    GRADIENT_NAMES      what gradients are called, where that isn't plain: a regular expression
    PLANTS              mistake -> (text, text with the mistake): what no general rule would find

Only correct code belongs here: the tests compare each file with finite differences.
"""
