package dev.edgebert.tokenizer

/**
 * One text, or pair of texts, as ids: every array has an entry for each token.
 *
 * @property ids places in the vocabulary.
 * @property typeIds 0 or 1, the token's type.
 * @property tokens the pieces as the vocabulary spells them.
 * @property starts the String index (UTF-16) in its own text where a token begins; 0 for special ones.
 * @property ends the one after its last character; 0 for special ones.
 * @property special whether it is one that was put around the text.
 * @property words the number of the word, in its own text, that a token is of; -1 for special ones.
 * @property sequences 0 for the first text, 1 for the second, -1 for special ones.
 */
public class Encoding(
    public val ids: IntArray,
    public val typeIds: IntArray,
    public val tokens: Array<String>,
    public val starts: IntArray,
    public val ends: IntArray,
    public val special: BooleanArray,
    public val words: IntArray,
    public val sequences: IntArray,
) {
    /** How many tokens there are. */
    public val size: Int get() = ids.size
}
