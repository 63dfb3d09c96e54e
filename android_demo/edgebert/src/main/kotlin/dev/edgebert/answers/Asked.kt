package dev.edgebert.answers

import dev.edgebert.engines.Tensor
import dev.edgebert.tokenizer.Encoding

/**
 * Texts as they were run, and the outputs of each by name.
 *
 * @property truncated whether one was cut to the longest length.
 * @property tokenCount tokens of the longest, before it was cut.
 */
internal class Asked(
    val encodings: List<Encoding>,
    val outputs: List<Map<String, Tensor>>,
    val truncated: Boolean,
    val tokenCount: Int,
)
