;;; forelook.el --- Private code completion from your own machine  -*- lexical-binding: t; -*-

;; Copyright (C) 2026 The Forelook authors

;; Author: The Forelook authors
;; Maintainer: The Forelook authors
;; URL: https://github.com/forelook/forelook
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.2") (eglot "1.9"))
;; Keywords: convenience, languages, tools

;; This file is not part of GNU Emacs.

;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Forelook suggests code while you type, from a model that runs on your own
;; machine.  This package shows the suggestions of its language server,
;; `forelook-lsp', as ghost text at point.
;;
;; With Eglot:
;;
;;     (add-hook 'prog-mode-hook #'forelook-ensure)
;;
;; starts the server through Eglot and turns on `forelook-mode'.  Eglot talks to
;; one server per buffer.  Where you use another one already, leave that hook
;; out, run both servers behind a multiplexer as one server of Eglot, and turn
;; on `forelook-mode': it works with any server that offers inline completion.
;;
;; While a suggestion is shown:
;;
;;     TAB          take it
;;     M-<right>    take its next word
;;     M-<down>     take it up to the end of its next line
;;     M-n, M-p     show another alternative
;;     C-g          dismiss it
;;
;; With `forelook-motions-accept' motion commands take the suggestion up to
;; where they would land in it.
;;
;; With lsp-mode 10 or newer, which shows inline completions by itself:
;;
;;     (with-eval-after-load 'lsp-mode (forelook-lsp-mode-setup))

;;; Code:

(require 'cl-lib)
(require 'eglot)
(require 'jsonrpc)
(require 'seq)
(require 'subr-x)

(defgroup forelook nil
  "Private code completion from your own machine."
  :group 'convenience
  :prefix "forelook-")

(defcustom forelook-command '("forelook-lsp")
  "The language server and its arguments."
  :type '(repeat string)
  :risky t)

(defcustom forelook-settings nil
  "Settings for the language server, a property list such as (:device \"cpu\").
Run \"forelook-lsp --describe-options\" for what there is."
  :type 'plist
  :risky t)

(defcustom forelook-idle-delay 0.05
  "Seconds without input before the server is asked."
  :type 'number)

(defcustom forelook-automatic t
  "Whether to ask while you type, or only on \\[forelook-trigger]."
  :type 'boolean)

(defcustom forelook-inhibit-functions '(forelook--popup-visible-p forelook--evil-idle-p)
  "Functions without arguments; a non-nil value of one means: suggest nothing now."
  :type 'hook)

(defcustom forelook-motions-accept nil
  "Whether motion commands take the suggestion up to where they land in it.
Which commands these are says `forelook-motion-commands'."
  :type 'boolean)

(defcustom forelook-motion-commands
  '( forward-char right-char forward-word right-word forward-to-word forward-symbol forward-sexp
     forward-list end-of-line move-end-of-line end-of-visual-line forward-sentence forward-paragraph
     end-of-buffer next-line subword-forward evil-forward-char evil-forward-word-begin
     evil-forward-word-end evil-end-of-line)
  "Commands that `forelook-motions-accept' is about."
  :type '(repeat function))

(defface forelook-ghost '((t :inherit shadow))
  "Face of suggested text that is not in the buffer.")

(defconst forelook--invoked 1 "LSP's trigger kind of an explicit request.")
(defconst forelook--automatic 2 "LSP's trigger kind of a request made while typing.")
(defconst forelook--silent-errors '(-32800 -32801 -32802)
  "Errors that mean no more than that a request was overtaken.")

;;; Suggestions

(cl-defstruct (forelook--item (:copier nil))
  "A suggestion and its place.
RAW is the item as received, START a marker at its range's start, TEXT what the
range becomes, TAIL the text between point and the range's end, SUFFIX the text
behind the range on its line, ACCEPTED the UTF-16 length of what came before
TEXT in the received item."
  raw server start text tail suffix (accepted 0))

(defvar-local forelook--items nil "Suggestions for the text around point.")
(defvar-local forelook--index 0 "Which of `forelook--items' is shown.")
(defvar-local forelook--asked nil "Whether `forelook--items' answer an explicit request.")
(defvar-local forelook--overlays nil "Overlays that show the suggestion.")
(defvar-local forelook--visible nil "Non-nil while a suggestion is shown; enables `forelook-suggestion-map'.")
(defvar-local forelook--request 0 "Number of the latest request; answers to others are stale.")
(defvar-local forelook--running nil "Server and id of the running request, a cons.")
(defvar-local forelook--timer nil "Timer that asks the server when input pauses.")
(defvar-local forelook--tick nil "Modification tick at which the buffer was last looked at.")
(defvar-local forelook--quiet-tick nil "Modification tick at which the user dismissed.")
(defvar-local forelook--empty-tick nil "Modification tick at which the server had nothing to suggest.")
(defvar-local forelook--shown nil "Items reported to the server as shown.")
(defvar-local forelook--motion-length 0 "Characters that the motion under way takes.")

(defun forelook--utf16-length (string)
  "Number of UTF-16 code units of STRING."
  (+ (length string) (cl-count-if (lambda (character) (> character #xFFFF)) string)))

(defun forelook--units (string encoding)
  "Length of STRING in the position ENCODING of a server."
  (pcase encoding
    ("utf-8" (string-bytes string))
    ("utf-32" (length string))
    (_ (forelook--utf16-length string))))

(defun forelook--index-of-column (line column encoding)
  "Characters of LINE before COLUMN, which counts in ENCODING."
  (let ((index 0) (seen 0))
    (while (and (< index (length line)) (< seen column))
      (setq seen (+ seen (forelook--units (substring line index (1+ index)) encoding))
            index (1+ index)))
    index))

(defun forelook--normalise (text)
  "TEXT with newline as its only line end."
  (replace-regexp-in-string "\r\n?" "\n" text t t))

(defun forelook--line ()
  "The current line as a cons of its text before and after point."
  (cons (buffer-substring-no-properties (line-beginning-position) (point))
        (buffer-substring-no-properties (point) (line-end-position))))

(defun forelook--make-item (raw server row line encoding)
  "Make an item from RAW of SERVER, asked in LINE (a cons) of ROW, or nil.
Columns count in ENCODING.  Nil stands for an item that breaks LSP's rules."
  (let* ((insert (plist-get raw :insertText))
         (range (plist-get raw :range))
         (whole (concat (car line) (cdr line)))
         (point (length (car line)))
         (from point)
         (to point))
    (when (and (stringp insert) (not (string-empty-p insert)))
      (when range
        (let ((start (plist-get range :start)) (end (plist-get range :end)))
          (if (= row (plist-get start :line) (plist-get end :line))
              (setq from (forelook--index-of-column whole (plist-get start :character) encoding)
                    to (forelook--index-of-column whole (plist-get end :character) encoding))
            (setq from (1+ point)))))
      (let ((text (forelook--normalise insert)))
        (when (and (<= from point) (<= point to)
                   (string-prefix-p (substring whole from point) text))
          (save-excursion
            (forelook--goto-row row)
            (make-forelook--item
             :raw raw :server server
             :start (copy-marker (min (line-end-position) (+ (line-beginning-position) from)))
             :text text
             :tail (substring whole point to)
             :suffix (substring whole to))))))))

(defun forelook--goto-row (row)
  "Go to the start of line ROW, which counts from zero in the whole buffer."
  (goto-char (point-min))
  (forward-line row))

(defun forelook--rest (item)
  "What of ITEM is still to be inserted at point, or nil when it fits no longer."
  (let ((start (forelook--item-start item)))
    (when (and (marker-position start)
               (<= (line-beginning-position) start (point)))
      (let* ((before (buffer-substring-no-properties start (point)))
             (text (forelook--item-text item))
             (tail (forelook--item-tail item)))
        (when (and (string-prefix-p before text)
                   (string= (cdr (forelook--line)) (concat tail (forelook--item-suffix item))))
          (let ((rest (substring text (length before))))
            (unless (or (string-empty-p rest) (string= rest tail))
              rest)))))))

(defun forelook--current ()
  "The shown item and what is left of it, a cons, if it still fits."
  (when-let* ((item (nth forelook--index forelook--items))
              (rest (save-restriction (widen) (forelook--rest item))))
    (cons item rest)))

(defun forelook--align (rest tail)
  "Positions in REST of the characters of TAIL, or t where it lacks them.
They are looked for from the end, so that a closing bracket stays the last one."
  (let ((at (length rest)) (positions nil) (i (length tail)))
    (while (and (> i 0) (listp positions))
      (setq i (1- i))
      (setq at (1- at))
      (while (and (>= at 0) (/= (aref rest at) (aref tail i)))
        (setq at (1- at)))
      (if (< at 0)
          (setq positions t)
        (push at positions)))
    positions))

;;; Drawing

(defun forelook--ghost (text cursor)
  "TEXT as ghost text; with CURSOR non-nil the cursor stays before it."
  (let ((string (propertize text 'face 'forelook-ghost)))
    (cond
     ((not cursor) string)
     ;; The display engine does not put the cursor on a newline.
     ((string-prefix-p "\n" text) (concat (propertize " " 'cursor t) string))
     (t (put-text-property 0 1 'cursor t string)
        string))))

(defun forelook--clear-overlays ()
  "Take the ghost text off the screen."
  (mapc #'delete-overlay forelook--overlays)
  (setq forelook--overlays nil
        forelook--visible nil))

(defun forelook--draw (rest tail)
  "Show REST at point, over TAIL that follows it."
  (forelook--clear-overlays)
  (let ((positions (forelook--align rest tail)))
    (if (eq positions t)
        (let ((overlay (make-overlay (point) (+ (point) (length tail)))))
          (overlay-put overlay 'before-string (forelook--ghost rest t))
          (overlay-put overlay 'invisible t)
          (push overlay forelook--overlays))
      (let ((taken 0) (offset 0))
        (dolist (position (append positions (list (length rest))))
          (when (> position taken)
            (let ((overlay (make-overlay (+ (point) offset) (+ (point) offset))))
              (overlay-put overlay 'after-string
                           (forelook--ghost (substring rest taken position) (zerop offset)))
              (push overlay forelook--overlays)))
          (setq taken (1+ position)
                offset (1+ offset)))))
    (dolist (overlay forelook--overlays)
      (overlay-put overlay 'priority 1000)
      (overlay-put overlay 'window (selected-window)))
    (setq forelook--visible t)))

(defun forelook--hide ()
  "Forget the suggestions."
  (forelook--clear-overlays)
  (dolist (item forelook--items)
    (set-marker (forelook--item-start item) nil))
  (setq forelook--items nil
        forelook--index 0
        forelook--asked nil))

(defun forelook--show ()
  "Draw the selected suggestion, or forget all when it fits no longer.
Return whether one is shown."
  (pcase (and (not (run-hook-with-args-until-success 'forelook-inhibit-functions))
              (forelook--current))
    (`(,item . ,rest)
     (forelook--draw rest (forelook--item-tail item))
     (let ((raw (forelook--item-raw item)))
       (unless (memq raw forelook--shown)
         (push raw forelook--shown)
         (forelook--notify (forelook--item-server item)
                           :textDocument/didShowCompletion (list :item raw))))
     t)
    (_ (forelook--hide) nil)))

(defun forelook--popup-visible-p ()
  "Whether a completion popup is open."
  (or (bound-and-true-p company-candidates)
      (bound-and-true-p completion-in-region-mode)))

(declare-function evil-insert-state-p "ext:evil-states")
(declare-function evil-emacs-state-p "ext:evil-states")

(defun forelook--evil-idle-p ()
  "Whether Evil is in a state where nothing is typed."
  (and (bound-and-true-p evil-local-mode)
       (not (evil-insert-state-p))
       (not (evil-emacs-state-p))))

;;; The server

(defclass forelook-eglot-server (eglot-lsp-server) ()
  :documentation "Eglot's server object for Forelook's language server.")

(defun forelook--environment ()
  "Variables that exclude the modules of a project from the server's Python.
An alist: a file such as types.py would take the place of Python's own."
  (list (cons "PYTHONSAFEPATH" "1")
        (cons "PYTHONPATH"
              (mapconcat #'identity
                         (seq-filter #'file-name-absolute-p
                                     (split-string (or (getenv "PYTHONPATH") "") path-separator t))
                         path-separator))))

(cl-defmethod initialize-instance :around ((_server forelook-eglot-server) &rest _)
  "Start the server's process in the environment of `forelook--environment'."
  (let ((process-environment (copy-sequence process-environment)))
    (pcase-dolist (`(,name . ,value) (forelook--environment))
      (setenv name value))
    (cl-call-next-method)))

(cl-defmethod eglot-client-capabilities ((_server forelook-eglot-server))
  "What Eglot can do, and inline completion, but no file events.
For those Eglot would watch each folder of the project; the server looks for
changed files by itself instead."
  (let* ((capabilities (copy-sequence (cl-call-next-method)))
         (workspace (copy-sequence (plist-get capabilities :workspace)))
         (document (copy-sequence (plist-get capabilities :textDocument))))
    (setq capabilities
          (plist-put capabilities :workspace
                     (plist-put workspace :didChangeWatchedFiles
                                (list :dynamicRegistration :json-false))))
    (plist-put capabilities :textDocument
               (plist-put document :inlineCompletion (list :dynamicRegistration :json-false)))))

(cl-defmethod eglot-initialization-options ((_server forelook-eglot-server))
  "The settings of `forelook-settings'."
  (or forelook-settings (make-hash-table)))

(defvar forelook--status nil
  "What servers last said of themselves: an alist from server to property list.")

(defvar forelook--complaints nil "Server errors already reported to the user.")

(cl-defmethod eglot-handle-notification
  ((server forelook-eglot-server) (_method (eql 'forelook/status)) &rest status)
  "Keep the STATUS of SERVER for the mode line; act on what has changed."
  (setq forelook--status (cl-delete-if-not #'jsonrpc-running-p forelook--status :key #'car))
  (let ((before (plist-get (alist-get server forelook--status) :state))
        (now (plist-get status :state)))
    (setf (alist-get server forelook--status) status)
    (force-mode-line-update t)
    (cond
     ((equal now "error")
      (forelook--complain-later (plist-get status :message)
                                (lambda () (alist-get server forelook--status))))
     ((and (equal now "ready") (not (equal before "completing")))
      (setq forelook--complaints nil)
      (forelook--ask-again server)))))

(defun forelook--complain-later (message status)
  "Tell the user of the error MESSAGE, once, if it does not heal by itself.
STATUS is a function that gives the server's latest status."
  (unless (or (not (stringp message)) (member message forelook--complaints))
    (push message forelook--complaints)
    (run-with-timer
     2 nil
     (lambda ()
       (let ((latest (funcall status)))
         (when (and (equal (plist-get latest :state) "error")
                    (equal (plist-get latest :message) message))
           (message "Forelook: %s" message)))))))

(defun forelook--server ()
  "The current buffer's server, if inline completion is among its features."
  (when-let* ((server (eglot-current-server)))
    ;; {} arrives as nil, so the value says nothing.
    (and (jsonrpc-running-p server)
         (plist-member (eglot--capabilities server) :inlineCompletionProvider)
         server)))

(defun forelook--encoding (server)
  "The position encoding agreed on with SERVER."
  (or (plist-get (eglot--capabilities server) :positionEncoding) "utf-16"))

(defun forelook--notify (server method params)
  "Send SERVER a notification METHOD with PARAMS, if it still lives."
  (when (jsonrpc-running-p server)
    (jsonrpc-notify server method params)))

(defun forelook--cancel ()
  "Cancel the running request."
  (pcase forelook--running
    (`(,server . ,id)
     (setq forelook--running nil)
     (when id
       (forelook--notify server :$/cancelRequest (list :id id)))))
  (setq forelook--request (1+ forelook--request)))

(defun forelook--send (server method params success failure)
  "Send SERVER a request METHOD with PARAMS; return its id if there is one.
SUCCESS and FAILURE take the result and the error."
  ;; `jsonrpc-async-request' keeps the id to itself, and without it nothing can be cancelled.
  (let ((sent (jsonrpc--async-request-1
               server method params :success-fn success :error-fn failure
               :timeout-fn #'ignore)))
    (car-safe sent)))

(defun forelook--ask (kind then)
  "Ask with trigger KIND and call THEN with the items that still fit."
  (when-let* ((server (forelook--server)))
    ;; Eglot holds changes back while one types.
    (eglot--signal-textDocument/didChange)
    (let* ((buffer (current-buffer))
           (line (save-restriction (widen) (forelook--line)))
           (row (1- (line-number-at-pos (point) t)))
           (encoding (forelook--encoding server))
           (previous forelook--running)
           (number (setq forelook--request (1+ forelook--request)))
           (current (lambda ()
                      (and (buffer-live-p buffer)
                           (= number (buffer-local-value 'forelook--request buffer)))))
           (params (list :textDocument (eglot--VersionedTextDocumentIdentifier)
                         :position (list :line row
                                         :character (forelook--units (car line) encoding))
                         :context (list :triggerKind kind))))
      (setq forelook--running
            (cons server
                  (forelook--send
                   server :textDocument/inlineCompletion params
                   (lambda (result)
                     (when (funcall current)
                       (with-current-buffer buffer
                         (setq forelook--running nil)
                         (force-mode-line-update)
                         (funcall then (forelook--fitting result server row line encoding)))))
                   (lambda (failure)
                     (when (funcall current)
                       (with-current-buffer buffer
                         (setq forelook--running nil)
                         (force-mode-line-update)
                         (unless (memq (plist-get failure :code) forelook--silent-errors)
                           (message "Forelook: %s" (plist-get failure :message)))))))))
      (force-mode-line-update)
      ;; The old request goes after the new one, so that the server can hand its work over.
      (pcase previous
        (`(,server . ,(and id (pred identity)))
         (forelook--notify server :$/cancelRequest (list :id id)))))))

(defun forelook--fitting (result server row line encoding)
  "Items of RESULT that still fit the buffer, without duplicates.
SERVER was asked in LINE of ROW, with columns in ENCODING."
  (save-restriction
    (widen)
    (let ((items nil))
      (seq-do (lambda (raw)
                (let ((item (forelook--make-item raw server row line encoding)))
                  (when (and item
                             (forelook--rest item)
                             (not (cl-find (forelook--item-text item) items
                                           :key #'forelook--item-text :test #'string=)))
                    (push item items))))
              (if (and (listp result) (plist-member result :items))
                  (plist-get result :items)
                result))
      (nreverse items))))

;;; When to ask

(defvar forelook-mode)

(defun forelook--stop-timer ()
  "Stop waiting for a pause."
  (when forelook--timer
    (cancel-timer forelook--timer)
    (setq forelook--timer nil)))

(defun forelook--reset ()
  "Drop everything: timer, request, suggestions."
  (forelook--stop-timer)
  (when forelook--running
    (forelook--cancel))
  (forelook--hide))

(defun forelook--show-items (items asked)
  "Show ITEMS, with ASKED non-nil if the user asked for them."
  (when items
    (forelook--hide)
    (setq forelook--items items
          forelook--asked asked)
    (if (eq (current-buffer) (window-buffer (selected-window)))
        (forelook--show)
      (forelook--hide))))

(defun forelook--schedule ()
  "Ask when input pauses."
  (forelook--stop-timer)
  (let ((buffer (current-buffer)))
    (setq forelook--timer
          (run-with-timer
           forelook-idle-delay nil
           (lambda ()
             (when (buffer-live-p buffer)
               (with-current-buffer buffer
                 (setq forelook--timer nil)
                 (when (and forelook-mode
                            (eq buffer (window-buffer))
                            (not (input-pending-p))
                            (not (run-hook-with-args-until-success 'forelook-inhibit-functions)))
                   (forelook--ask
                    forelook--automatic
                    (lambda (items)
                      (setq forelook--empty-tick (and (null items) (buffer-chars-modified-tick)))
                      (forelook--show-items items nil)))))))))))

(defun forelook--ask-again (server)
  "Ask SERVER, ready now, for what it had no suggestion for before."
  (with-current-buffer (window-buffer (selected-window))
    (when (and forelook-mode
               (eq server (forelook--server))
               (eql forelook--empty-tick (buffer-chars-modified-tick)))
      (forelook--schedule))))

(defun forelook--post-command ()
  "Keep the suggestion true to the text, or ask for another."
  (let* ((tick (buffer-chars-modified-tick))
         (changed (not (eql tick forelook--tick))))
    (setq forelook--tick tick)
    (cond
     ((and forelook--items (forelook--show))
      (forelook--stop-timer))
     ((and changed forelook-automatic (not buffer-read-only)
           (not (eql tick forelook--quiet-tick)))
      (forelook--schedule))
     ((not changed)
      ;; Point went elsewhere: what is under way there is of no use here.
      (when (and (or forelook--running forelook--timer)
                 (not (eq this-command 'forelook-trigger)))
        (forelook--reset))))))

;;; Accepting

(defun forelook--next-word (text)
  "Length of the next word of TEXT: white space, then a word or punctuation."
  (string-match "\\`[[:space:]\n]*\\(?:[[:alnum:]_[:nonascii:]]+\\|[^[:alnum:]_[:nonascii:][:space:]\n]+\\)?" text)
  (max 1 (match-end 0)))

(defun forelook--next-line (text)
  "Length of TEXT up to the end of its next line that has something on it."
  (string-match "\\`\n*[^\n]*" text)
  (match-end 0))

(defun forelook--accept (length)
  "Insert LENGTH characters of the shown suggestion.
LENGTH is a number, or a function from what is left to a number."
  (pcase-let ((`(,item . ,rest) (or (forelook--current)
                                    (user-error "No suggestion to accept"))))
    (forelook--stop-timer)
    (when forelook--running
      (forelook--cancel))
    (let* ((length (min (length rest) (if (functionp length) (funcall length rest) length)))
           (whole (= length (length rest)))
           (tail (forelook--item-tail item))
           (positions (forelook--align rest tail))
           (consumed (cond (whole (length tail))
                           ((eq positions t) 0)
                           (t (cl-count-if (lambda (position) (< position length)) positions))))
           (piece (substring rest 0 length))
           (text (forelook--item-text item))
           (accepted (substring text 0 (+ (- (length text) (length rest)) length)))
           (units (+ (forelook--item-accepted item) (forelook--utf16-length accepted))))
      (forelook--clear-overlays)
      (undo-boundary)
      (delete-region (point) (+ (point) consumed))
      (insert piece)
      (undo-boundary)
      (if whole
          (progn
            (forelook--run-command item)
            (forelook--hide))
        (setf (forelook--item-tail item) (substring tail consumed))
        (when-let* ((newline (cl-position ?\n accepted :from-end t))
                    ((string-search "\n" piece)))
          ;; The range moves to the line that point is on now.
          (let ((start (1+ newline)))
            (setf (forelook--item-accepted item)
                  (+ (forelook--item-accepted item) (forelook--utf16-length (substring text 0 start)))
                  (forelook--item-text item) (substring text start))
            (set-marker (forelook--item-start item) (line-beginning-position))))
        (setq forelook--items (list item)
              forelook--index 0)
        (forelook--notify (forelook--item-server item)
                          :textDocument/didPartiallyAcceptCompletion
                          (list :item (forelook--item-raw item) :acceptedLength units))
        (forelook--show)))))

(defun forelook--run-command (item)
  "Tell the server that ITEM was accepted, by the command it came with."
  (when-let* ((command (plist-get (forelook--item-raw item) :command))
              (server (forelook--item-server item)))
    (when (jsonrpc-running-p server)
      (jsonrpc-async-request server :workspace/executeCommand
                             (list :command (plist-get command :command)
                                   :arguments (or (plist-get command :arguments) []))
                             :success-fn #'ignore :error-fn #'ignore :timeout-fn #'ignore))))

(defun forelook-accept ()
  "Take the whole suggestion."
  (interactive "*")
  (forelook--accept #'length))

(defun forelook-accept-word ()
  "Accept the next word of the suggestion."
  (interactive "*")
  (forelook--accept #'forelook--next-word))

(defun forelook-accept-line ()
  "Take the suggestion up to the end of its next line."
  (interactive "*")
  (forelook--accept #'forelook--next-line))

(defun forelook--accept-motion ()
  "Take the suggestion up to where the motion lands; see `forelook-motions-accept'."
  (interactive "*")
  (forelook--accept forelook--motion-length))

(defun forelook--motion-target (command rest)
  "Characters of REST that COMMAND would move over, were REST in the buffer."
  (let ((table (syntax-table))
        (before (car (forelook--line)))
        (after (cdr (forelook--line))))
    (with-temp-buffer
      (set-syntax-table table)
      (insert before)
      (let ((start (point)))
        (save-excursion (insert rest after))
        ;; A motion that cannot move signals, as it may.
        (ignore-errors (call-interactively command))
        (- (point) start)))))

(defun forelook--pre-command ()
  "Let motions take the suggestion, where the user wants that."
  (when (and forelook-motions-accept
             forelook--visible
             (memq this-command forelook-motion-commands))
    (when-let* ((rest (cdr (forelook--current)))
                (length (forelook--motion-target this-command rest))
                ((> length 0)))
      (setq forelook--motion-length length
            this-command #'forelook--accept-motion))))

(defun forelook-trigger ()
  "Ask for suggestions now."
  (interactive "*")
  (unless (forelook--server)
    (user-error "Forelook: %s" (forelook--why-not)))
  (forelook--stop-timer)
  (setq forelook--quiet-tick nil)
  (forelook--ask forelook--invoked
                 (lambda (items)
                   (if items
                       (forelook--show-items items t)
                     (message "Forelook: no suggestion here")))))

(defun forelook--cycle (delta)
  "Show the alternative DELTA further on, asking for some if there is one."
  (pcase-let ((`(,shown . ,_) (or (forelook--current)
                                  (user-error "No suggestion is shown")))
              (step (lambda ()
                      (setq forelook--index (mod (+ forelook--index delta) (length forelook--items)))
                      (forelook--show))))
    (if (or forelook--asked (cdr forelook--items))
        (funcall step)
      (forelook--ask
       forelook--invoked
       (lambda (items)
         (when (eq shown (car (forelook--current)))
           (setq forelook--asked t
                 forelook--items (cons shown
                                       (cl-remove (forelook--item-text shown) items
                                                  :key #'forelook--item-text :test #'string=)))
           (funcall step)))))))

(defun forelook-next ()
  "Show the next alternative."
  (interactive)
  (forelook--cycle 1))

(defun forelook-previous ()
  "Show the previous alternative."
  (interactive)
  (forelook--cycle -1))

(defun forelook-dismiss ()
  "Hide the suggestion until the next change of the text."
  (interactive)
  (forelook--reset)
  (setq forelook--quiet-tick (buffer-chars-modified-tick)))

;;; Status and commands of the server

(defun forelook--why-not ()
  "Why the current buffer gets no suggestions, or nil."
  (cond
   ((not (eglot-current-server)) "Eglot does not manage this buffer (M-x forelook-ensure)")
   ((not (forelook--server)) "this buffer's language server offers no inline completion")))

(defun forelook-status-string ()
  "What Forelook is doing in the current buffer, for a mode line."
  (let* ((server (forelook--server))
         (status (alist-get server forelook--status))
         (state (plist-get status :state))
         (progress (plist-get status :progress)))
    (cond
     ((not server) "off")
     ((equal state "error") "error")
     ((equal state "paused") "paused")
     ((and (equal state "loading") (numberp progress)) (format "%d%%%%" (* 100 progress)))
     ((member state '("starting" "loading")) state)
     (forelook--running "…")
     (t ""))))

(defun forelook--lighter ()
  "The minor mode's text in the mode line."
  (let ((status (forelook-status-string)))
    (if (string-empty-p status) " Forelook" (concat " Forelook:" status))))

(defun forelook-status ()
  "Say what Forelook is doing, or why there are no suggestions here."
  (interactive)
  (let* ((status (alist-get (forelook--server) forelook--status))
         (model (plist-get status :model)))
    (message "Forelook: %s"
             (or (forelook--why-not)
                 (string-join
                  (delq nil (list (or (plist-get status :state) "ready")
                                  (and (stringp model) (not (string-empty-p model))
                                       (format "%s on %s" model (plist-get status :device)))
                                  (let ((message (plist-get status :message)))
                                    (and (stringp message) (not (string-empty-p message)) message))))
                  ", ")))))

(defun forelook--find-command (server name)
  "The id of SERVER's command NAME, which may carry a suffix."
  (seq-find (lambda (id) (or (string= id name) (string-prefix-p (concat name ".") id)))
            (plist-get (plist-get (eglot--capabilities server) :executeCommandProvider) :commands)))

(defun forelook--describe (value indent)
  "Insert property list VALUE, one line per field, indented by INDENT."
  (cl-loop for (name field) on value by #'cddr do
           (insert (make-string indent ?\s) (substring (symbol-name name) 1) ":")
           (if (and (consp field) (keywordp (car field)))
               (progn (insert "\n") (forelook--describe field (+ 2 indent)))
             (insert (format " %s\n" (if (floatp field) (format "%.2f" field) field))))))

(defun forelook--execute (name then)
  "Run the server's command NAME and call THEN with its result."
  (let* ((server (or (forelook--server) (user-error "Forelook: %s" (forelook--why-not))))
         (id (or (forelook--find-command server name)
                 (user-error "This language server has no command %s; update it" name))))
    (jsonrpc-async-request server :workspace/executeCommand (list :command id :arguments [])
                           :success-fn then
                           :error-fn (lambda (failure)
                                       (message "Forelook: %s" (plist-get failure :message)))
                           :timeout-fn (lambda () (message "Forelook: the server did not answer")))))

(defun forelook-stats ()
  "Show counts of suggestions: shown, accepted, rejected.
They stay on your machine."
  (interactive)
  (forelook--execute
   "forelook.stats"
   (lambda (result)
     (with-current-buffer (get-buffer-create "*forelook statistics*")
       (let ((inhibit-read-only t))
         (erase-buffer)
         (forelook--describe result 0))
       (goto-char (point-min))
       (special-mode)
       (display-buffer (current-buffer))))))

(defun forelook-clear-pool ()
  "Forget what was learned of this workspace."
  (interactive)
  (forelook--execute "forelook.clearPool"
                     (lambda (_result) (message "Forelook: the pool of this workspace is empty now"))))

(defun forelook-restart ()
  "Restart the language server."
  (interactive)
  (eglot-reconnect (or (eglot-current-server) (user-error "Forelook: %s" (forelook--why-not))) t))

(defun forelook-log ()
  "Show what the language server wrote to standard error."
  (interactive)
  (eglot-stderr-buffer (or (eglot-current-server) (user-error "Forelook: %s" (forelook--why-not)))))

;;; Modes

(defvar forelook-suggestion-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "TAB") #'forelook-accept)
    (define-key map (kbd "<tab>") #'forelook-accept)
    (define-key map (kbd "M-<right>") #'forelook-accept-word)
    (define-key map (kbd "M-<down>") #'forelook-accept-line)
    (define-key map (kbd "M-n") #'forelook-next)
    (define-key map (kbd "M-p") #'forelook-previous)
    (define-key map (kbd "C-g") #'forelook-dismiss)
    map)
  "Keys while a suggestion is shown.")

(defvar forelook--emulation-alist `((forelook--visible . ,forelook-suggestion-map))
  "Puts `forelook-suggestion-map' before the maps of other minor modes.")

;;;###autoload
(define-minor-mode forelook-mode
  "Show suggestions of Forelook's language server as ghost text.
\\<forelook-suggestion-map>
While one is shown, \\[forelook-accept] takes it, \\[forelook-accept-word] its next word and
\\[forelook-accept-line] its next line; \\[forelook-next] and \\[forelook-previous] show
alternatives, \\[forelook-dismiss] dismisses it."
  :lighter (:eval (forelook--lighter))
  (if forelook-mode
      (progn
        (add-to-list 'emulation-mode-map-alists 'forelook--emulation-alist)
        (setq forelook--tick (buffer-chars-modified-tick))
        (add-hook 'pre-command-hook #'forelook--pre-command nil t)
        (add-hook 'post-command-hook #'forelook--post-command nil t)
        (add-hook 'kill-buffer-hook #'forelook--reset nil t))
    (forelook--reset)
    (remove-hook 'pre-command-hook #'forelook--pre-command t)
    (remove-hook 'post-command-hook #'forelook--post-command t)
    (remove-hook 'kill-buffer-hook #'forelook--reset t)))

;;;###autoload
(defun forelook-ensure ()
  "Let Eglot start Forelook's server for this buffer; turn on `forelook-mode'."
  (interactive)
  (setq-local eglot-server-programs
              (cons (cons major-mode (cons 'forelook-eglot-server forelook-command))
                    eglot-server-programs))
  (when buffer-file-name
    (eglot-ensure))
  (forelook-mode 1))

;;; lsp-mode

(declare-function lsp-register-client "ext:lsp-mode")
(declare-function lsp-stdio-connection "ext:lsp-mode")
(declare-function make-lsp-client "ext:lsp-mode")

(defvar forelook--lsp-mode-status nil "What the server under lsp-mode last said of itself.")

(defun forelook--lsp-mode-status (_workspace status)
  "Tell the user of an error in STATUS, a property list or hash table."
  (setq forelook--lsp-mode-status
        (if (hash-table-p status)
            (list :state (gethash "state" status) :message (gethash "message" status))
          status))
  (pcase (plist-get forelook--lsp-mode-status :state)
    ("error" (forelook--complain-later (plist-get forelook--lsp-mode-status :message)
                                       (lambda () forelook--lsp-mode-status)))
    ("ready" (setq forelook--complaints nil))))

;;;###autoload
(defun forelook-lsp-mode-setup ()
  "Register Forelook with lsp-mode, in addition to each language's server.
Lsp-mode 10 or newer shows the suggestions by itself; see
`lsp-inline-completion-mode'."
  (require 'lsp-mode)
  (lsp-register-client
   (make-lsp-client
    :new-connection (lsp-stdio-connection (lambda () forelook-command))
    :activation-fn (lambda (&rest _) (derived-mode-p 'prog-mode 'text-mode 'conf-mode))
    :initialization-options (lambda () (or forelook-settings (make-hash-table)))
    :environment-fn #'forelook--environment
    :notification-handlers (let ((handlers (make-hash-table :test #'equal)))
                             (puthash "forelook/status" #'forelook--lsp-mode-status handlers)
                             handlers)
    :add-on? t
    :priority -10
    :server-id 'forelook)))

(provide 'forelook)

;;; forelook.el ends here
