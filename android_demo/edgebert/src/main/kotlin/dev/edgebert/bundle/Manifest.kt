package dev.edgebert.bundle

/** What a bundle's `manifest.json` says; the fields that an app needs, each explained in Python's `Manifest`. */
public class Manifest(
    public val family: String,
    public val source: String,
    public val task: String,
    public val target: String,
    public val recipe: String,
    public val floor: String,
    public val lengths: List<Int>,
    public val dynamic: Boolean,
    public val vocabSize: Int,
    public val padId: Int,
    public val paddingInvariant: Boolean,
    public val parameters: Long,
    public val labels: List<String>,
    public val reading: Reading,
    public val modelFile: String,
    public val inputs: List<Spec>,
    public val outputs: List<Spec>,
    public val files: Map<String, Entry>,
    public val typeVocabSize: Int,
    public val prompt: String,
    public val tolerance: Tolerance?,
    public val notes: List<String>,
)

/** How logits become an answer. */
public class Reading(
    public val activation: String,
    public val threshold: Double?,
    public val aggregation: String?,
    public val stride: Int?,
    public val longestAnswer: Int?,
    public val similarity: String?,
)

/** An input or output of the model file: -1 is a free axis. */
public class Spec(public val name: String, public val dtype: String, public val shape: List<Int>)

/** What is said of a file. */
public class Entry(public val bytes: Long, public val sha256: String)

/** What the bundle is held to. */
public class Tolerance(public val minSqnrDb: Double, public val minLabelAgreement: Double, public val reason: String)
