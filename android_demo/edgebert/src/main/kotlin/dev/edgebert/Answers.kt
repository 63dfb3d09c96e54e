package dev.edgebert

/**
 * What a model says of a text. Places in texts are String indices (UTF-16), of the text as it was given; [toJson] counts
 * code points, as Python does.
 */
public sealed interface Answer {
    /** Whether the text was cut to the longest length. */
    public val truncated: Boolean

    /** Tokens of the whole text, special ones included. */
    public val tokenCount: Int

    /** The object that `edgebert predict --json` prints. */
    public fun toJson(): String
}

/** A label, a choice or a piece, with its score. */
public data class Scored(val label: String, val score: Double)

/**
 * The labels of a text.
 *
 * @property label the best; null where several may apply and none does.
 * @property score of it.
 * @property labels the best five; where several may apply those that do, best first.
 * @property scores of all labels, in their order.
 * @property logits of all labels, as the model gave them; none where its file applies the activation by itself.
 * @property several whether several labels may apply.
 */
public data class Classification(
    val label: String?,
    val score: Double?,
    val labels: List<Scored>,
    val scores: List<Double>,
    val logits: List<Float>,
    val several: Boolean,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/** Which of several texts goes best with one: its number, itself, and the scores of all. */
public data class Choice(
    val choice: Int,
    val label: String,
    val score: Double,
    val scores: List<Double>,
    val logits: List<Float>,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/**
 * A token, or a word, as pieces spell it, with its label. [start] until [end] is its place in the text, or where
 * [ofPair] holds in the second one.
 */
public data class Labelled(
    val text: String,
    val start: Int,
    val end: Int,
    val label: String,
    val score: Double,
    val ofPair: Boolean,
)

/** An entity: its kind, its words as pieces spell them, itself as it was given, and its place, see [Labelled]. */
public data class Entity(
    val kind: String,
    val score: Double,
    val word: String,
    val text: String,
    val start: Int,
    val end: Int,
    val ofPair: Boolean,
)

/** What is said of each token, word and entity of a [text], or a pair. */
public data class Entities(
    val text: String,
    val pair: String?,
    val tokens: List<Labelled>,
    val words: List<Labelled>,
    val entities: List<Entity>,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/**
 * Where in a [context] the answer stands.
 *
 * @property answer the text itself; empty where there is none.
 * @property score its probability.
 * @property noAnswer the probability that there is none.
 */
public data class Span(
    val context: String,
    val answer: String,
    val start: Int,
    val end: Int,
    val score: Double,
    val noAnswer: Double,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/** The likeliest pieces for each [MASK], or for what comes next, best first; [label] is the first place's best. */
public data class Pieces(
    val label: String,
    val score: Double,
    val words: List<List<Scored>>,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/** A token, its place in the text, or where [ofPair] holds in the second one, and how much it looks replaced. */
public data class Suspect(val token: String, val start: Int, val end: Int, val score: Double, val ofPair: Boolean)

/** How much each token of a [text], or a pair, looks replaced. */
public data class Replaced(
    val text: String,
    val pair: String?,
    val tokens: List<Suspect>,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/** The encoder's output: its shape (tokens, hidden), and the mean over the text's own tokens. */
public data class States(
    val shape: List<Int>,
    val mean: List<Double>,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/** A text as one vector. */
public data class Embedding(
    val vector: List<Float>,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/** How alike two texts are, by the model's own measure. */
public data class Similarity(
    val similarity: Double,
    override val truncated: Boolean,
    override val tokenCount: Int,
) : Answer {
    override fun toJson(): String = Json.of(this)
}

/**
 * A text's continuation.
 *
 * @property text the continuation alone, without special tokens.
 * @property ids its pieces; a [SEP] that ended it is the last of them.
 * @property promptIds what it continues: [CLS] and the pieces of the text.
 * @property stopped `sep` where the model closed the text, `max_new_tokens` or `length` where a limit was met.
 */
public data class Generated(
    val text: String,
    val ids: List<Int>,
    val promptIds: List<Int>,
    val stopped: String,
) {
    /** The object that `edgebert predict --max-new-tokens N --json` prints. */
    public fun toJson(): String = Json.of(this)
}
