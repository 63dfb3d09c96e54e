package dev.edgebert.app

import android.content.Context
import android.net.Uri
import android.os.Build
import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import dev.edgebert.CheckReport
import dev.edgebert.EdgebertException
import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException

/** What became of the model. */
internal sealed interface Model {
    /** @property unpacking whether it comes out of a zip. */
    class Opening(val unpacking: Boolean) : Model

    class Open(val opened: Opened) : Model

    /** The app has none. */
    object None : Model

    /** @property why a sentence. */
    class Refused(val why: String) : Model
}

/** Work that takes a while, and what came of it. */
internal sealed interface Work<out T> {
    object Idle : Work<Nothing>

    object Cancelled : Work<Nothing>

    /** @property share that is done, 0 to 1. */
    class Running(val step: String, val share: Double) : Work<Nothing>

    class Done<T>(val result: T) : Work<T>

    /** @property why a sentence. */
    class Failed(val why: String) : Work<Nothing>
}

/** An answer to a question, or a sentence that says why there is none. */
internal class Reply(val question: Question, val answer: Any?, val error: String?, val milliseconds: Double)

/**
 * What outlives a rotation: the open model, the one thread on which it runs, and all that came of it. Properties belong
 * to the main thread, and [changed] is called there.
 */
internal class Session(private val app: Context, private val phone: Phone = Phone()) {
    private val bundles = Bundles(app)
    private val main = Handler(Looper.getMainLooper())
    private val worker = Executors.newSingleThreadExecutor { Thread(it, "model") }

    @Volatile private var latest: Question? = null

    @Volatile private var cancelled = false

    /** Told of every change; whoever shows it. */
    var changed: () -> Unit = {}

    var model: Model = Model.Opening(unpacking = false)
        private set
    var reply: Reply? = null
        private set
    var measuring: Work<Measured> = Work.Idle
        private set
    var checking: Work<CheckReport> = Work.Idle
        private set

    /** A sentence on what went wrong beside the model that is open; null where nothing did. */
    var notice: String? = null

    val hasBuiltIn: Boolean by lazy { bundles.hasBuiltIn }

    val opened: Opened? get() = (model as? Model.Open)?.opened

    /** Whether the model's thread is taken for a while. */
    val isBusy: Boolean get() = measuring is Work.Running || checking is Work.Running

    init {
        become(::openChosen)
    }

    /** Opens the bundle in a zip; where it is refused, [notice] says why, and the one before stays. */
    fun open(zip: Uri) {
        val before = model
        replaceModel(unpacking = true) {
            try {
                Model.Open(bundles.take(zip)).also { (before as? Model.Open)?.opened?.edgebert?.close() }
            } catch (error: EdgebertException) {
                post { notice = sentence(error) }
                before
            }
        }
    }

    /** Goes back to the bundle that came with the app. */
    fun openBuiltIn() {
        val before = opened
        replaceModel(unpacking = false) {
            bundles.forget()
            before?.edgebert?.close()
            openChosen()
        }
    }

    /** Answers a question once typing pauses; one that is no longer the latest is not answered. */
    fun ask(question: Question) {
        val open = opened ?: return
        if (question == latest?.copy(writeOn = false) && !question.writeOn) return
        latest = question
        main.removeCallbacksAndMessages(TYPING)
        if (open.edgebert.tokenizer == null || !open.task.isReady(question)) {
            reply = null
            return
        }
        val start = Runnable { work { answer(open, question) } }
        main.postAtTime(start, TYPING, SystemClock.uptimeMillis() + if (question.writeOn) 0 else PAUSE_MS)
    }

    fun measure() {
        val open = opened ?: return
        if (isBusy) return
        cancelled = false
        measuring = Work.Running("", 0.0)
        changed()
        work {
            val result = finished { measured(open) }
            post { measuring = result }
        }
    }

    fun check() {
        val open = opened ?: return
        if (isBusy) return
        cancelled = false
        checking = Work.Running("", 0.0)
        changed()
        work {
            val result = finished {
                open.edgebert.check { step, share ->
                    goOn()
                    post { if (checking is Work.Running) checking = Work.Running(step, share) }
                }
            }
            post { checking = result }
        }
    }

    /** Ends a measurement or a check before its next run. */
    fun cancel() {
        cancelled = true
    }

    /** Frees the model once what runs on it has ended. */
    fun close() {
        cancelled = true
        latest = null
        changed = {}
        main.removeCallbacksAndMessages(TYPING)
        work { post { opened?.edgebert?.close() } }
        worker.shutdown()
    }

    private fun replaceModel(unpacking: Boolean, make: () -> Model) {
        if (model is Model.Opening) return
        cancelled = true
        latest = null
        notice = null
        val before = model
        model = Model.Opening(unpacking)
        changed()
        become {
            val made = make()
            if (made !== before) post(::forget)
            made
        }
    }

    /** What was seen of another model. */
    private fun forget() {
        measuring = Work.Idle
        checking = Work.Idle
        reply = null
    }

    private fun openChosen(): Model = bundles.open()?.let { Model.Open(it) } ?: Model.None

    private fun answer(open: Opened, question: Question) {
        if (question !== latest) return
        val start = System.nanoTime()
        var error: String? = null
        val answer = try {
            open.task.ask(open.edgebert, question)
        } catch (refused: EdgebertException) {
            error = sentence(refused)
            null
        }
        val took = (System.nanoTime() - start) / 1e6
        post { if (question === latest) reply = Reply(question, answer, error, took) }
    }

    private fun measured(open: Opened): Measured {
        val lengths = open.edgebert.manifest.lengths
        val counts = phone.threadCounts
        val timings = ArrayList<Timing>()
        for (threads in counts) {
            bundles.open(open.folder, threads).edgebert.use { model ->
                for (length in lengths) {
                    val share = timings.size / (lengths.size * counts.size).toDouble()
                    val (tokens, on) = app.plural(R.plurals.tokens, length) to app.plural(R.plurals.threads, threads)
                    val step = app.getString(R.string.measure_step, tokens, on)
                    post { if (measuring is Work.Running) measuring = Work.Running(step, share) }
                    timings += Timing.of(model, length, threads, ::goOn)
                }
            }
        }
        return Measured(open, phone, timings.sortedBy { it.length }, app.version)
    }

    private fun goOn() {
        if (cancelled) throw Stop()
    }

    private fun <T> finished(make: () -> T): Work<T> = try {
        Work.Done(make())
    } catch (_: Stop) {
        Work.Cancelled
    } catch (error: EdgebertException) {
        Work.Failed(sentence(error))
    }

    /** The model that is made on its thread is the one from then on. */
    private fun become(make: () -> Model) = work {
        val made = try {
            make()
        } catch (error: EdgebertException) {
            Model.Refused(sentence(error))
        } catch (_: LinkageError) { // the runtime is not there for this kind of processor
            Model.Refused(app.getString(R.string.no_runtime, Build.SUPPORTED_ABIS.firstOrNull().orEmpty()))
        }
        post { model = made }
    }

    private fun work(run: () -> Unit) {
        try {
            worker.execute(run)
        } catch (_: RejectedExecutionException) {
            // The window is closed, and nobody waits for it.
        }
    }

    private fun post(change: () -> Unit) {
        main.post {
            change()
            changed()
        }
    }

    private fun sentence(error: EdgebertException): String = error.message.orEmpty()
        .replaceFirstChar { it.uppercase() }

    private class Stop : RuntimeException()

    private companion object {
        val TYPING = Any()
        const val PAUSE_MS = 150L
    }
}
