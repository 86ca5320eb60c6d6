create table results (
	id         text primary key,
	pipeline   text not null,
	status     text not null,
	problem    text,
	stored_at  timestamptz not null,
	trace_id   text,
	sha256     text,
	width      integer,
	height     integer,
	body       jsonb not null
);
comment on table results is 'The answer of every job, as of contracts/schema/v1/result.json.';
comment on column results.problem is 'Code of the problem of a job that failed.';
create index results_stored_at on results (stored_at);

create table labels (
	result text not null references results (id) on delete cascade,
	region integer not null,
	label  text not null,
	score  real not null,
	primary key (result, region, label)
);
comment on table labels is 'What each region is, by its own label and those of the classifier.';
create index labels_label on labels (label);
