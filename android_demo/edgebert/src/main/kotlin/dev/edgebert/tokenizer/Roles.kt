package dev.edgebert.tokenizer

/** The ids of the special tokens. */
internal class Roles private constructor(val unknown: Int, val pad: Int, val cls: Int, val sep: Int, val mask: Int) {
    companion object {
        /** A noncharacter: in no vocabulary, so what a model makes of it is its unknown token. */
        private val UNSEEN = intArrayOf(0x10FFFE)
        private const val NONE = -1

        /**
         * Finds the special tokens by their usual names, and adds them so that no text is split inside of one. A mask that
         * the vocabulary lacks gets the next id.
         */
        fun of(added: AddedTokens, model: Model): Roles {
            val unknown = unknown(added, model)
            val named = listOf(
                added.token(unknown), name(added, "pad", "[PAD]", "<pad>"), name(added, "cls", "[CLS]", "<s>"),
                name(added, "sep", "[SEP]", "</s>"), name(added, null, "[MASK]", "<mask>"),
            )
            added.add(named.filterNotNull().filter { !added.isAdded(it) }.map { AddedToken(it, special = true) })
            val ids = named.map { name -> name?.let { added.id(it) } ?: NONE }
            return Roles(ids[0], ids[1], ids[2], ids[3], ids[4])
        }

        private fun unknown(added: AddedTokens, model: Model): Int {
            // One that spells every byte makes it of no text.
            if (model is Bpe) return listOfNotNull(model.unknown, "[UNK]", "<unk>").firstNotNullOfOrNull { added.id(it) } ?: NONE
            val tokens = Tokens(4)
            model.tokenize(Span(NormalizedText.of(UNSEEN, 0, 1), 0, 1), tokens)
            if (tokens.size != 1) refuse("it spells unknown text as ${tokens.size} tokens; one unknown token is supported")
            return tokens.ids[0]
        }

        /** The first name that is in the vocabulary; [role] must be. */
        private fun name(added: AddedTokens, role: String?, vararg usual: String): String =
            usual.firstOrNull { added.id(it) != null }
                ?: if (role == null) usual[0] else refuse("it has no ${usual.joinToString(" or ")}, its $role token")
    }
}

/**
 * How texts are framed: [CLS] A [SEP], or [CLS] A [SEP] B [SEP].
 *
 * @property doubled whether two [SEP] stand between the texts of a pair, as RoBERTa and XLM-R have it.
 * @property typed whether the second text of a pair is of type 1; else all tokens are of type 0, again as those have it.
 */
internal class Framing(val doubled: Boolean, val typed: Boolean) {
    /** How many special tokens stand around and between one text or two. */
    fun specials(texts: Int): Int = texts + 1 + if (doubled && texts == 2) 1 else 0

    /** The same as a part of the pipeline. */
    fun processor(roles: Roles): PostProcessor {
        val cls = TemplateProcessing.Part(listOf(roles.cls), false, 0)
        fun text(second: Boolean, type: Int) = TemplateProcessing.Part(null, second, type)
        fun sep(type: Int) = TemplateProcessing.Part(listOf(roles.sep), false, type)
        val single = listOf(cls, text(false, 0), sep(0))
        val type = if (typed) 1 else 0
        return TemplateProcessing(single, single + (if (doubled) listOf(sep(0)) else emptyList()) + listOf(text(true, type), sep(type)))
    }

    companion object {
        /** The way that makes the same of two texts as a file's own post-processor. */
        fun of(theirs: PostProcessor, roles: Roles, first: IntArray, second: IntArray): Framing =
            listOf(Framing(false, true), Framing(true, false), Framing(false, false)).firstOrNull { framing ->
                val ours = framing.processor(roles)
                listOf(null, second).all { same(theirs.process(first, it), ours.process(first, it)) }
            } ?: refuse("it does not make [CLS] A [SEP] B [SEP] of two texts: it is not of BERT's family")

        private fun same(one: Framed, other: Framed): Boolean = one.ids == other.ids && one.types == other.types
    }
}
